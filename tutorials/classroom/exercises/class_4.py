"""The exercises of class 4: our function, its inputs, and the mistakes that many make."""
