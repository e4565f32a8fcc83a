"""What other packages test their extensions of zipml-ooc with."""
