"""`make soak MINUTES=60`: workers on a Kafka of their own, and a nemesis that never rests; nothing may be lost."""
