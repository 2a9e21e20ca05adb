namespace FCtrans;

/// <summary>What a part of a VM's memory is to its guest.</summary>
public enum VmMemoryKind
{
    /// <summary>In use, or not known to be unused.</summary>
    Used = 0,

    /// <summary>Not written since the guest started, or since its memory was given back: it lies nowhere.</summary>
    NeverTouched = 1,

    /// <summary>Free in the guest kernel's page allocator, and it takes memory.</summary>
    Free = 2,

    /// <summary>Given back through a balloon, and it takes memory.</summary>
    Ballooned = 3,
}
