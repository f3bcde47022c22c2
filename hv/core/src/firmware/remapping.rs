//! What the tables DMAR and IVRS have in common: a header, and from byte 48 on structures that each state their length
//! in bytes 2 and 3.

/// Offset of the first structure.
pub(super) const LIST: usize = 48;
/// Smallest size of a structure: its type, and its length.
const SMALLEST: usize = 4;

/// Returns the table, cut to the length that it states, if it has this signature.
///
/// # Errors
/// What is wrong with the table.
pub(super) fn whole(table: &[u8], signature: [u8; 4]) -> Result<&[u8], &'static str> {
    let stated = number(table, 4, 4).and_then(|length| table.get(..usize::try_from(length).ok()?));
    let table = stated.filter(|table| table.len() >= LIST).ok_or("its length is wrong")?;
    if table.starts_with(&signature) { Ok(table) } else { Err("it is another table") }
}

/// Returns the structures of the table. One whose length is wrong yields an error as the last item.
pub(super) fn structures(table: &[u8]) -> impl Iterator<Item = Result<&[u8], &'static str>> {
    let mut rest = table.get(LIST..).unwrap_or_default();
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = number(rest, 2, 2).and_then(|length| usize::try_from(length).ok());
        // A length of 0 would make the walk endless.
        let split =
            length.filter(|length| *length >= SMALLEST).and_then(|length| rest.split_at_checked(length));
        let (structure, after) = split.unzip();
        rest = after.unwrap_or_default();
        Some(structure.ok_or("a structure in it has a wrong length"))
    })
}

/// Returns the number of `size` bytes at `offset`, or `None` if the structure ends before it does.
pub(super) fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
