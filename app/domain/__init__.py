"""The rules: functions from a session and arguments to rows or a named error. No HTTP, no HTML, no torch."""
