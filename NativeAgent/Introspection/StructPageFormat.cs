namespace FCtrans.Agent.Introspection;

/// <summary>
/// What this guest's kernel says of its <c>struct page</c>, and the limits within which its word is believed.
/// </summary>
/// <param name="Size">Bytes of one.</param>
/// <param name="MapcountOffset">Of the 32-bit <c>_mapcount</c>, which for a page without mappings holds its type.</param>
/// <param name="PrivateOffset">Of the 64-bit <c>private</c>, which in the head of a free block holds its order.</param>
/// <param name="BuddyValue"><c>_mapcount</c> of a page that heads a free block. Always compared whole: kernels before 6.12 keep flags there, later ones a type in the top byte.</param>
/// <param name="OfflineValue"><c>_mapcount</c> of a page that a balloon took (PageOffline); null when the kernel doesn't say.</param>
/// <param name="UnacceptedValue"><c>_mapcount</c> of a page that heads a block of the largest order which the guest has not accepted from its hypervisor yet; null when the kernel doesn't say (before 6.16).</param>
/// <param name="Orders">How many block orders there are: a free block has 2^0 to 2^(Orders-1) pages.</param>
internal sealed record StructPageFormat(
    int Size, int MapcountOffset, int PrivateOffset, uint BuddyValue, uint? OfflineValue, uint? UnacceptedValue, int Orders)
{
    public static bool TryCreate(VmCoreInfo info, out StructPageFormat format, out string reason)
    {
        format = null!;
        if (!info.TrySize("page", out ulong size) || size is < 32 or > 512 || size % 8 != 0)
        {
            reason = "SIZE(page) is missing or senseless";
            return false;
        }

        if (!info.TryOffset("page._mapcount", out ulong mapcount) || mapcount % 4 != 0 || mapcount > size - 4)
        {
            reason = "OFFSET(page._mapcount) is missing or senseless";
            return false;
        }

        if (!info.TryOffset("page.private", out ulong order) || order % 8 != 0 || order > size - 8)
        {
            reason = "OFFSET(page.private) is missing or senseless";
            return false;
        }

        if (!info.TryNumber("PAGE_BUDDY_MAPCOUNT_VALUE", out ulong buddy) || (int)(uint)buddy >= -1)
        {
            // -1 is what every unmapped page has, 0 and above count mappings: such a value would make used pages free.
            reason = "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE) is missing or senseless";
            return false;
        }

        if (!info.TryLength("zone.free_area", out ulong orders) || orders is < 1 or > 20)
        {
            reason = "LENGTH(zone.free_area) is missing or senseless";
            return false;
        }

        uint? offline = Type(info, "PAGE_OFFLINE_MAPCOUNT_VALUE", (uint)buddy);
        uint? unaccepted = Type(info, "PAGE_UNACCEPTED_MAPCOUNT_VALUE", (uint)buddy);
        if (unaccepted == offline)
        {
            unaccepted = null;
        }

        format = new((int)size, (int)mapcount, (int)order, (uint)buddy, offline, unaccepted, (int)orders);
        reason = "";
        return true;
    }

    /// <summary>A value that can be no count of mappings and is not the buddy allocator's; null for any other.</summary>
    private static uint? Type(VmCoreInfo info, string name, uint buddy)
        => info.TryNumber(name, out ulong value) && (int)(uint)value < -1 && (uint)value != buddy ? (uint)value : null;
}
