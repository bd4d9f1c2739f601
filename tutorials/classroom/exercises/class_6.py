"""The exercises of class 6: our function, its inputs, and the mistakes that many make."""
