namespace FCtrans.Agent.Paging;

/// <summary>
/// What the number beside a page in the table stands for: one store or two. Numbers 0 to 30 are the stores' own; where pages have two
/// copies, of which at most 16 stores can hold some, numbers from 16 on stand for pairs, given out as they are needed.
/// <para>
/// A pair's number is given to another only when no page has it. Pages get other numbers than they have from the holder of
/// <see cref="PagingCore.EvictionGate"/> only, and so does this table. Whoever owns a page (Busy, Fetching, Evicting) or holds the gate
/// may rely on what its number means; who only looks has to look again once it owns it.
/// </para>
/// </summary>
internal sealed class Places
{
    /// <summary>Stores that may be in pairs; the numbers from here on are the pairs'.</summary>
    public const int MaxPaired = 16;

    /// <summary>First store, and from bit 8 on second store + 1.</summary>
    private readonly int[] _members = new int[PageEntry.MaxSubs];

    public Places()
    {
        for (int i = 0; i < _members.Length; i++)
        {
            _members[i] = i;
        }
    }

    /// <summary>-1 for none.</summary>
    public int First(int place) => place < 0 ? -1 : Volatile.Read(ref _members[place]) & 0xff;

    /// <summary>-1 for none.</summary>
    public int Second(int place) => place < 0 ? -1 : (Volatile.Read(ref _members[place]) >> 8) - 1;

    public bool IsPair(int place) => Second(place) >= 0;

    public bool Contains(int place, int store) => place >= 0 && store >= 0 && (First(place) == store || Second(place) == store);

    /// <summary>Whether every store of <paramref name="inner"/> is one of <paramref name="outer"/>; none is in all.</summary>
    public bool Covers(int outer, int inner) =>
        inner < 0 || (Contains(outer, First(inner)) && (Second(inner) < 0 || Contains(outer, Second(inner))));

    /// <summary>The store of <paramref name="place"/> that is not <paramref name="store"/>; -1 when there is none.</summary>
    public int Other(int place, int store) => First(place) == store ? Second(place) : First(place);

    /// <summary>The number for two stores, made if need be; -1 when there is none left. Only as told above.</summary>
    /// <param name="a">Below <see cref="MaxPaired"/>, as <paramref name="b"/>; another.</param>
    public int Pair(PageTable table, int a, int b)
    {
        if (a >= MaxPaired || b >= MaxPaired || a == b)
        {
            return -1;
        }

        int free = -1;
        for (int place = MaxPaired; place < _members.Length; place++)
        {
            if (IsPair(place) && Contains(place, a) && Contains(place, b))
            {
                return place;
            }

            if (free < 0 && table.CopiesAt(place) == 0)
            {
                free = place;
            }
        }

        if (free >= 0)
        {
            Volatile.Write(ref _members[free], a | (b + 1) << 8);
        }

        return free;
    }
}
