"""What the commands do; their options are parsed before any of this is imported, which takes seconds."""
