"""How do models learn from people? Pure torch: dataclasses in, dataclasses out, no database."""
