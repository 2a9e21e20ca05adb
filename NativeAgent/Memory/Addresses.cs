namespace FCtrans.Agent.Memory;

/// <summary>What the guest's page tables hold: an address on the guest's physical bus.</summary>
internal readonly record struct GuestPhysicalAddress(ulong Value)
{
    public override string ToString() => $"guest-physical 0x{Value:x}";
}

/// <summary>A virtual address of the guest's kernel.</summary>
internal readonly record struct GuestVirtualAddress(ulong Value)
{
    public override string ToString() => $"guest-virtual 0x{Value:x}";
}

/// <summary>A virtual address in the QEMU process. Means nothing in ours.</summary>
internal readonly record struct HostAddress(ulong Value)
{
    public static HostAddress operator +(HostAddress address, ulong bytes) => new(address.Value + bytes);

    public override string ToString() => $"host address 0x{Value:x}";
}
