"""What do the parts of reward_quality.py stand on? Public judgments as labels, fits side by side, rows of figures."""
