"""The demo: openings, a hidden preference, simulated annotators and the self-check."""
