"""Measurements on held-out clips while a model trains."""
