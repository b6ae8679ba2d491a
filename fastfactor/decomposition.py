"""stub"""


class SVDResult:
    pass


def svd_of_factors(U, V):
    raise NotImplementedError
