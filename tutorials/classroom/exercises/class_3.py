"""The exercises of class 3: our function, its inputs, and the mistakes that many make."""
