//! What differs between two texts, line by line.

/// The lines of `expected` and `found`, those that only one of them has marked with `-` and `+`.
pub(super) fn lines(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    // The longest common subsequence: `longest[i][j]` is the length of that of the rests from `i` and `j` on.
    let mut longest = vec![vec![0_usize; found.len() + 1]; expected.len() + 1];
    for i in (0..expected.len()).rev() {
        for j in (0..found.len()).rev() {
            longest[i][j] = if expected[i] == found[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut told = String::new();
    let mut tell = |mark: char, line: &str| {
        told.push(mark);
        told.push(' ');
        told.push_str(line);
        told.push('\n');
    };
    while i < expected.len() || j < found.len() {
        if i < expected.len() && j < found.len() && expected[i] == found[j] {
            tell(' ', expected[i]);
            (i, j) = (i + 1, j + 1);
        } else if i < expected.len() && (j == found.len() || longest[i + 1][j] >= longest[i][j + 1]) {
            tell('-', expected[i]);
            i += 1;
        } else {
            tell('+', found[j]);
            j += 1;
        }
    }
    told
}

#[cfg(test)]
mod test {
    #[test]
    fn lines_of_one_side_are_marked() {
        assert_eq!(super::lines("a\nb\nc", "a\nx\nc\nd"), "  a\n- b\n+ x\n  c\n+ d\n");
        assert_eq!(super::lines("", "a"), "+ a\n");
        assert_eq!(super::lines("same", "same"), "  same\n");
    }
}
