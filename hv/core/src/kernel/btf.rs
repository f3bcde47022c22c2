//! BTF: the kernel's own description of its types, of which the offsets of some members are read here.
//!
//! It is in the image of a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build it, and no debug package is
//! needed. Linux 6.1, Documentation/bpf/btf.rst.

use super::view::View;

/// The first two bytes.
const MAGIC: u16 = 0xeb9f;
/// The most bytes of types. Debian's kernels have 3 MiB.
const MAX_TYPES: u64 = 32 << 20;
/// The size of what each type begins with: name, information, size.
const TYPE: u64 = 12;
/// The size of a member of a structure.
const MEMBER: u64 = 12;
/// A structure, among the kinds of types.
const STRUCT: u32 = 4;
/// The bytes after the first ones of a type, for each kind: a constant, and as many for each of its parts.
const SIZES: [(u64, u64); 20] = [
    (0, 0),  // void
    (4, 0),  // an integer
    (0, 0),  // a pointer
    (12, 0), // an array
    (0, 12), // a structure
    (0, 12), // a union
    (0, 8),  // an enumeration
    (0, 0),  // a forward declaration
    (0, 0),  // a name for a type
    (0, 0),  // volatile
    (0, 0),  // const
    (0, 0),  // restrict
    (0, 0),  // a function
    (0, 8),  // a function's type
    (4, 0),  // a variable
    (0, 12), // a section
    (0, 0),  // a floating-point number
    (4, 0),  // a declaration's tag
    (0, 0),  // a type's tag
    (0, 12), // an enumeration of 64 bits
];

/// A member of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The offset in bytes.
    pub offset: u32,
    /// The offset of the next member, or the structure's size.
    pub next: u32,
    /// The size of the structure.
    pub size: u32,
}

/// Returns the members that `wanted` names by structure and member, as far as they exist. `start` is the address of the
/// description. `None` if it is damaged.
pub fn members<const N: usize>(
    view: View<'_>,
    start: u64,
    wanted: &[(&str, &str); N],
) -> Option<[Option<Member>; N]> {
    if view.u16(start)? != MAGIC {
        return None;
    }
    // Magic, version, flags, then the length of this header and two offsets from its end, each with its length.
    let header = |word: u64| Some(u64::from(view.u32(start.checked_add(word * 4)?)?));
    let after = start.checked_add(header(1)?)?;
    let (types, bytes) = (after.checked_add(header(2)?)?, header(3)?.min(MAX_TYPES));
    let names = after.checked_add(header(4)?)?;
    let end = types.checked_add(bytes)?;
    let mut found = [None; N];
    let mut at = types;
    while at < end && found.contains(&None) {
        let field = |word: u64| view.u32(at.checked_add(word * 4)?);
        let information = field(1)?;
        let (parts, kind) = (u64::from(information & 0xffff), information >> 24 & 31);
        if kind == STRUCT {
            let name = names.checked_add(field(0)?.into())?;
            let structure = Structure {
                members: at.checked_add(TYPE)?,
                count: parts,
                bits: information >> 31 != 0,
                size: field(2)?,
            };
            for ((of, member), found) in wanted.iter().zip(&mut found) {
                if found.is_none() && is(view, name, of) {
                    *found = structure.member(view, names, member);
                }
            }
        }
        let (fixed, each) = SIZES.get(kind as usize)?;
        at = at.checked_add(TYPE + fixed + each * parts)?;
    }
    Some(found)
}

/// A structure.
struct Structure {
    /// The address of the first member.
    members: u64,
    count: u64,
    /// Offsets have the width of a bit field in their highest byte.
    bits: bool,
    size: u32,
}

impl Structure {
    fn member(&self, view: View<'_>, names: u64, wanted: &str) -> Option<Member> {
        let field = |member: u64, word: u64| view.u32(self.members.checked_add(member * MEMBER + word * 4)?);
        let offset = |member| {
            let offset = field(member, 2)?;
            Some(if self.bits { offset & 0xff_ffff } else { offset } / 8)
        };
        for member in 0..self.count {
            if is(view, names.checked_add(field(member, 0)?.into())?, wanted) {
                let next = if member + 1 < self.count { offset(member + 1)? } else { self.size };
                return Some(Member { offset: offset(member)?, next, size: self.size });
            }
        }
        None
    }
}

/// Returns true if the name at `at` is this one.
fn is(view: View<'_>, at: u64, name: &str) -> bool {
    let mut letters = view.stream(at);
    name.bytes().chain([0]).all(|letter| letters.byte() == Some(letter))
}
