"""Drawing without a screen: what draws, and how pools that draw in software share it."""
