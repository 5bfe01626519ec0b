"""How things look in a terminal: text, curves, and the pictures made of them."""
