"""The only rooms that import Ray, named as Ray names its own: data, train, tune, and what starts and watches them."""
