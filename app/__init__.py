"""vault-stream: an event-sourced stream processor for a data vault."""
