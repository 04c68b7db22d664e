"""What the agent touches the world with; each module is named after what it adapts."""
