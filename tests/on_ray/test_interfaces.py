from transferlib.on_ray.interfaces import find_interface


def test_the_interface_of_an_address_is_found_by_its_name() -> None:
    assert find_interface("127.0.0.1") == "lo"


def test_an_address_of_no_interface_is_none() -> None:
    assert find_interface("203.0.113.77") is None
