"""Webhooks, as plain Python: clock, randomness and transport are passed in.

Matching and filters, signing and secrets, the guard of targets, one attempt, the state of a delivery, the scheduler.
"""
