"""placeholder"""


def splits(text: str) -> bool:
    return True
