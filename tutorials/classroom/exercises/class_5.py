"""The exercises of class 5: our function, its inputs, and the mistakes that many make."""
