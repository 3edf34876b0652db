"""Results of several models -> tables and one HTML page."""
