"""Router: the door. Validates, renders prompts, spreads items over encoders, streams tokens back."""
