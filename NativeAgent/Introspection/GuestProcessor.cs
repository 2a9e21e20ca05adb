using System.Globalization;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// What one virtual CPU translates addresses with, as QEMU's monitor says it (<c>info registers -a</c>). It ties what is found
/// in memory to what runs: memory may still hold a kernel that a reboot or a kexec has ended, or one that a program in the
/// guest made up, but the processors only ever run the real one.
/// </summary>
internal readonly record struct GuestProcessor(ulong Cr0, ulong Cr3, ulong Cr4, ulong Efer)
{
    private const ulong PagingEnabled = 1UL << 31;
    private const ulong FiveLevels = 1UL << 12;
    private const ulong LongModeActive = 1UL << 10;

    /// <summary>False for a processor that was not started, or that firmware or a boot loader runs in a mode without paging.</summary>
    public bool Paging => (Cr0 & PagingEnabled) != 0;

    /// <summary>Whether it runs 64-bit code, or a program in compatibility mode under a 64-bit kernel.</summary>
    public bool LongMode => Paging && (Efer & LongModeActive) != 0;

    /// <summary>Of its page tables in long mode: 4 or 5.</summary>
    public int Levels => (Cr4 & FiveLevels) != 0 ? 5 : 4;

    /// <summary>
    /// Where the top table with all of the kernel's half may lie: the one that it uses now, and, when it may be a program on a
    /// kernel with page table isolation (a second top table, one page above that of the kernel's side, in which most of the
    /// kernel is absent), that of the kernel's side.
    /// </summary>
    public IReadOnlyList<GuestPhysicalAddress> Roots
    {
        get
        {
            ulong root = Cr3 & ~0xfffUL;
            return (root & PageIndex.PageSize) == 0 ? [new(root)] : [new(root), new(root & ~(ulong)PageIndex.PageSize)];
        }
    }

    /// <summary>Asks QEMU, running or stopped. A running processor is interrupted for some microseconds.</summary>
    /// <exception cref="MonitorException">The monitor does not answer.</exception>
    public static IReadOnlyList<GuestProcessor> Ask(QemuMonitor monitor) => Parse(monitor.HumanMonitor("info registers -a"));

    /// <summary>Reads the answer of <c>info registers -a</c>. A processor of which a register is missing is left out.</summary>
    public static IReadOnlyList<GuestProcessor> Parse(string infoRegisters)
    {
        var processors = new List<GuestProcessor>();
        foreach (string part in infoRegisters.Split("CPU#", StringSplitOptions.RemoveEmptyEntries))
        {
            if (TryRegister(part, "CR0=", out ulong cr0) && TryRegister(part, "CR3=", out ulong cr3) &&
                TryRegister(part, "CR4=", out ulong cr4) && TryRegister(part, "EFER=", out ulong efer))
            {
                processors.Add(new(cr0, cr3, cr4, efer));
            }
        }

        return processors;
    }

    /// <summary>
    /// Whether <paramref name="processors"/> run <paramref name="kernel"/>: at least one does, and none runs anything else.
    /// False for firmware, a boot loader, another kernel, and a nested guest (whose page tables are not the kernel's).
    /// </summary>
    public static bool Run(IReadOnlyList<GuestProcessor> processors, GuestKernel kernel, out string reason)
    {
        int running = 0;
        foreach (var processor in processors)
        {
            if (!processor.Paging)
            {
                continue;
            }

            if (!processor.Runs(kernel))
            {
                reason = $"kernel {kernel.Release} lies in the guest's memory, but a processor of the guest runs something else";
                return false;
            }

            running++;
        }

        reason = running > 0 ? "" : $"kernel {kernel.Release} lies in the guest's memory, but no processor of the guest runs it";
        return running > 0;
    }

    private bool Runs(GuestKernel kernel)
    {
        if (!LongMode || Levels != kernel.PageTables.Levels)
        {
            return false;
        }

        // Every address space of Linux shares the kernel's half, in which its own top table lies.
        foreach (var root in Roots)
        {
            var tables = new GuestPageTables(kernel.Memory, root, Levels);
            if (tables.TryTranslate(new(kernel.TopTable.Value), out var at))
            {
                return at == kernel.PageTables.Root;
            }
        }

        return false;
    }

    private static bool TryRegister(string text, string name, out ulong value)
    {
        value = 0;
        int at = text.IndexOf(name, StringComparison.Ordinal);
        if (at < 0)
        {
            return false;
        }

        int start = at + name.Length;
        int end = start;
        while (end < text.Length && end - start < 16 && char.IsAsciiHexDigit(text[end]))
        {
            end++;
        }

        return ulong.TryParse(text.AsSpan(start, end - start), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
    }
}
