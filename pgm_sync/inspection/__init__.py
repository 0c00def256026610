"""The correlations made visible: numbers, figures and reports."""
