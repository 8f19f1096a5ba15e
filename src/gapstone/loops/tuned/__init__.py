"""Hand-tuned CPU loops for what networks run all day; each stands beside the derived loop, which checks it."""
