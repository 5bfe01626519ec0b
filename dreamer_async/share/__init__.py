"""What leaves a run for others: pictures and films, exported policies, weights with a card."""
