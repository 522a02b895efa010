//! Reading fixed fields from the front of a slice.

/// Takes the next `N` bytes; `None`, and nothing taken, when there are fewer.
pub(crate) fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (field, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(field)
}

/// Takes the next `len` bytes; `None`, and nothing taken, when there are fewer.
pub(crate) fn take_slice<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (field, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(field)
}
