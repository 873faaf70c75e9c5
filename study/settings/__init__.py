"""What a study is set to: its models, how they are read and overridden, and what follows from them."""
