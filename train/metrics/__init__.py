"""Metrics that training and evaluation share, written once."""
