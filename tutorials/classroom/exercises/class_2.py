"""The exercises of class 2: our function, its inputs, and the mistakes that many make."""
