using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>What is known of a guest's unused memory, in pages of 4096 bytes, and how it is known.</summary>
internal sealed record UnusedFigures
{
    public const string Buddy = "buddy";
    public const string NeverTouchedOnly = "never-touched-only";

    /// <summary><see cref="Buddy"/> or <see cref="NeverTouchedOnly"/>.</summary>
    public required string Method { get; init; }

    /// <summary>Why not <see cref="Buddy"/>; empty if it is.</summary>
    public required string Reason { get; init; }

    /// <summary>The guest kernel's release; empty if none was found.</summary>
    public required string GuestKernel { get; init; }

    public long Total { get; init; }

    /// <summary>0 on a host where the guest is paged: holes mean something else there.</summary>
    public long NeverTouched { get; init; }

    /// <summary>In the guest's buddy allocator or in a per-CPU list of free pages, and touched before.</summary>
    public long Free { get; init; }

    /// <summary>Those of <see cref="Free"/> that are in a per-CPU list; 0 when the kernel does not tell where these are (before Linux 6.0, or built without BTF).</summary>
    public long PerCpu { get; init; }

    public long Ballooned { get; init; }

    /// <summary>All that is none of these.</summary>
    public long Used => Total - NeverTouched - Free - Ballooned;

    public double ScanMilliseconds { get; init; }

    /// <summary>Time taken to find the kernel; 0 when it was known already.</summary>
    public double FindMilliseconds { get; init; }

    /// <summary>These, with the pages of each kind as <paramref name="set"/> has them.</summary>
    public UnusedFigures With(UnusedSet set) => this with
    {
        NeverTouched = set.NeverTouchedPages,
        Free = set.FreePages,
        Ballooned = set.BalloonedPages,
    };
}
