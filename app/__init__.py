"""The server: everything of prefloop except learning."""
