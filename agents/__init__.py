"""What happens to a record: one handler an agent. Agents do not know each other; they meet on topics."""
