"""The exercises of class 8: our function, its inputs, and the mistakes that many make."""
