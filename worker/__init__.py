"""The learning half: jobs from the database, and the same functions from files."""
