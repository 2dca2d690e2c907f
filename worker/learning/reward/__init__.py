"""The reward model: what people said of responses becomes a score that says how sure it is."""
