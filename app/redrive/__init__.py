"""Putting back what could not be processed: quarantined records, in transactions that auditors hear of."""
