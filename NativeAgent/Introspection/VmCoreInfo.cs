using System.Globalization;
using System.Text;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The page in which a Linux kernel describes itself to crash dump tools: lines such as <c>SYMBOL(mem_section)=ffff…</c>,
/// <c>OFFSET(page._mapcount)=48</c>, <c>NUMBER(phys_base)=1767899136</c>. Its text is the guest's: every line is checked, and
/// what does not parse is left out. (Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst.)
/// </summary>
internal sealed class VmCoreInfo
{
    /// <summary>Every VMCOREINFO begins so, and begins at the start of a page.</summary>
    public static ReadOnlySpan<byte> Magic => "OSRELEASE="u8;

    /// <summary>The kernel never writes more than a page (VMCOREINFO_BYTES).</summary>
    public const int MaxBytes = 4096;

    private const int MaxLines = 512;

    private readonly Dictionary<string, ulong> _values = new(StringComparer.Ordinal);

    private VmCoreInfo(string release)
    {
        Release = release;
    }

    /// <summary>The kernel's release, as <c>uname -r</c> says it: 1 to 64 printable ASCII characters.</summary>
    public string Release { get; }

    /// <summary>How many lines were understood.</summary>
    public int Count => _values.Count;

    /// <summary>A page's first bytes → its lines. False, with the reason, for anything that is not such a page.</summary>
    public static bool TryParse(ReadOnlySpan<byte> page, out VmCoreInfo info, out string reason)
    {
        info = null!;
        if (!page.StartsWith(Magic))
        {
            reason = "the page does not begin with OSRELEASE=";
            return false;
        }

        if (page.Length > MaxBytes)
        {
            page = page[..MaxBytes];
        }

        int end = page.IndexOf((byte)0);
        if (end >= 0)
        {
            page = page[..end];
        }

        int lines = 0;
        while (!page.IsEmpty && lines++ < MaxLines)
        {
            int newline = page.IndexOf((byte)'\n');
            if (newline < 0)
            {
                // The kernel ends each line; a last one without its end may be cut off in the middle of a number.
                break;
            }

            var line = page[..newline];
            page = page[(newline + 1)..];
            if (info is null)
            {
                if (!TryText(line[Magic.Length..], 64, out string release))
                {
                    reason = "its OSRELEASE is not a kernel release";
                    return false;
                }

                info = new VmCoreInfo(release);
                continue;
            }

            info.Add(line);
        }

        if (info is null || info.Count == 0)
        {
            reason = "it has no complete line";
            return false;
        }

        reason = "";
        return true;
    }

    /// <summary>The virtual address of <c>SYMBOL(name)</c>.</summary>
    public bool TrySymbol(string name, out ulong value) => _values.TryGetValue("SYMBOL(" + name + ")", out value);

    /// <summary><c>OFFSET(type.member)</c>, in bytes.</summary>
    public bool TryOffset(string name, out ulong value) => _values.TryGetValue("OFFSET(" + name + ")", out value);

    /// <summary><c>SIZE(type)</c>, in bytes.</summary>
    public bool TrySize(string name, out ulong value) => _values.TryGetValue("SIZE(" + name + ")", out value);

    /// <summary><c>LENGTH(array)</c>, in elements.</summary>
    public bool TryLength(string name, out ulong value) => _values.TryGetValue("LENGTH(" + name + ")", out value);

    /// <summary><c>NUMBER(name)</c>; a negative one as its 64-bit two's complement.</summary>
    public bool TryNumber(string name, out ulong value) => _values.TryGetValue("NUMBER(" + name + ")", out value);

    /// <summary>A line with a bare name: <c>PAGESIZE</c> (decimal), <c>KERNELOFFSET</c> (hexadecimal).</summary>
    public bool TryPlain(string name, out ulong value) => _values.TryGetValue(name, out value);

    private void Add(ReadOnlySpan<byte> line)
    {
        int equals = line.IndexOf((byte)'=');
        if (equals <= 0 || !TryText(line[..equals], 96, out string key))
        {
            return;
        }

        if (!TryText(line[(equals + 1)..], 24, out string text))
        {
            return;
        }

        bool hexadecimal = key.StartsWith("SYMBOL(", StringComparison.Ordinal) || key == "KERNELOFFSET";
        if (text.StartsWith("0x", StringComparison.Ordinal))
        {
            hexadecimal = true;
            text = text[2..];
        }

        ulong value;
        if (hexadecimal)
        {
            if (!ulong.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value))
            {
                return;
            }
        }
        else if (text[0] == '-')
        {
            if (!long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long negative))
            {
                return;
            }

            value = (ulong)negative;
        }
        else if (!ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value))
        {
            return;
        }

        // The kernel appends as it boots: a later line is the better one, as for crash dump tools.
        _values[key] = value;
    }

    private static bool TryText(ReadOnlySpan<byte> bytes, int maxLength, out string text)
    {
        text = "";
        if (bytes.IsEmpty || bytes.Length > maxLength || bytes.IndexOfAnyExceptInRange((byte)0x21, (byte)0x7e) >= 0)
        {
            return false;
        }

        text = Encoding.ASCII.GetString(bytes);
        return true;
    }
}
