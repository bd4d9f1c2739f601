"""The exercises of class 7: our function, its inputs, and the mistakes that many make."""
