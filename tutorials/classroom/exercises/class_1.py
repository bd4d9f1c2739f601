"""The exercises of class 1: our function, its inputs, and the mistakes that many make."""
