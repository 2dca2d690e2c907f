"""Everything around PPO: what a policy wrote, what that is worth, who judges it, and when to stop."""
