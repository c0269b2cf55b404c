"""In which precision each layer computes: what it costs, what it loses, and the choice."""
