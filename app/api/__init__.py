"""The same rules as JSON under /api/v1."""
