"""What do the parts of ppo_quality.py stand on? A small policy that writes stories, runs side by side, and curves."""
