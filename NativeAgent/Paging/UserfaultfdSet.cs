using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The userfaultfds of one VM. Whoever faults stands in the queue of one of them, which has one lock for all who come, are read and are
/// woken; so a VM with many vCPUs has several, and its memory is theirs in turn, piece by piece.
/// <para>
/// What is done to a page has to be done through the one that has its piece: the kernel fills or protects it through any of the process's, but
/// wakes only who stands in the queue of the one that was asked. A range is therefore cut at the pieces' borders (<see cref="First"/>).
/// </para>
/// Owns them. Immutable; any thread.
/// </summary>
internal sealed class UserfaultfdSet : IDisposable
{
    /// <summary>The most for one VM.</summary>
    public const int Most = 8;

    /// <summary>One for so many vCPUs.</summary>
    private const int CpusEach = 2;

    /// <summary>64 MiB at least, so that a run of pages seldom meets a border; each has at least two of them.</summary>
    private const int LeastPieceShift = 14;

    /// <summary>Each is a mapping of its own in QEMU, which may have some 65,000.</summary>
    private const long MostPieces = 1024;

    private readonly Userfaultfd[] _all;
    private readonly int _pieceShift;

    private UserfaultfdSet(Userfaultfd[] all, int pieceShift)
    {
        _all = all;
        _pieceShift = pieceShift;
    }

    public ReadOnlySpan<Userfaultfd> All => _all;

    /// <summary>How many a VM is to have.</summary>
    public static int CountFor(int vcpus, long pages) => (int)Math.Clamp(Math.Min(vcpus / CpusEach, pages >> (LeastPieceShift + 1)), 1, Most);

    /// <summary>Shares a VM's memory out among its new userfaultfds: missing and write-protected pages.</summary>
    /// <param name="all">Opened by QEMU, their handshakes done. The set's from here on, also when this fails.</param>
    /// <param name="pieceShift">Pages of a piece, as a power of two; 0: what suits the VM.</param>
    /// <exception cref="KernelException">The memory can't be registered.</exception>
    public static UserfaultfdSet Register(GuestRam ram, IReadOnlyList<Userfaultfd> all, int pieceShift = 0)
    {
        var set = new UserfaultfdSet([.. all], PieceShift(ram, all.Count, pieceShift));
        try
        {
            ForEachPiece(ram, set._pieceShift, (piece, address) => Register(set.Of(piece.First), piece, address));
            return set;
        }
        catch
        {
            set.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Finds out which of a VM's userfaultfds has which part of its memory: what a worker that was killed had made. Lifts the protection
    /// of a few pages.
    /// </summary>
    /// <param name="all">All that QEMU has, in any order. The set's from here on, also when this fails.</param>
    /// <param name="pieceShift">As it was registered.</param>
    /// <exception cref="KernelException">A part of the memory is registered with none of them, or the VM has ended.</exception>
    public static UserfaultfdSet Find(GuestRam ram, IReadOnlyList<Userfaultfd> all, int pieceShift = 0)
    {
        int shift = PieceShift(ram, all.Count, pieceShift);
        var inOrder = new Userfaultfd?[all.Count];
        try
        {
            ForEachPiece(ram, shift, (piece, address) =>
            {
                CheckRegistered(all[0], piece, address);
                ref var owner = ref inOrder[Turn(piece.First, shift, all.Count)];
                owner ??= all.FirstOrDefault(candidate => Has(candidate, piece, address));
                if (owner is null || !Has(owner, piece, address))
                {
                    throw new KernelException($"find the userfaultfd that serves {piece}", Errno.EBUSY);
                }
            });
            if (inOrder.Contains(null) || inOrder.Distinct().Count() < all.Count)
            {
                throw new KernelException("tell the VM's userfaultfds apart", Errno.EBUSY);
            }

            return new([.. inOrder.Select(uffd => uffd!)], shift);
        }
        catch
        {
            foreach (var uffd in all)
            {
                uffd.Dispose();
            }

            throw;
        }
    }

    /// <summary>The one that has this page.</summary>
    public Userfaultfd Of(long page) => _all[Turn(page, _pieceShift, _all.Length)];

    /// <summary>The beginning of a range, as far as it is of one piece, and the one that has it.</summary>
    public PageRange First(PageRange range, out Userfaultfd owner)
    {
        owner = Of(range.First);
        return _all.Length == 1 ? range : Piece(range, _pieceShift);
    }

    public void Dispose()
    {
        foreach (var uffd in _all)
        {
            uffd.Dispose();
        }
    }

    private static int Turn(long page, int shift, int count) => count == 1 ? 0 : (int)((ulong)(page >> shift) % (uint)count);

    private static int PieceShift(GuestRam ram, int count, int wanted)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Most);
        int shift = Math.Max(wanted, 0);
        if (shift == 0)
        {
            for (shift = LeastPieceShift; ram.PageCount >> shift > MostPieces; shift++)
            {
            }
        }

        return shift;
    }

    private static void Register(Userfaultfd uffd, PageRange piece, HostAddress address) =>
        uffd.Register(address, (ulong)piece.Bytes, UffdRegisterMode.Missing | UffdRegisterMode.Wp);

    /// <summary>Registering what it has already changes nothing; what another has is refused.</summary>
    private static bool Has(Userfaultfd uffd, PageRange piece, HostAddress address)
    {
        try
        {
            Register(uffd, piece, address);
            return true;
        }
        catch (KernelException e) when (e.Errno == Errno.EBUSY)
        {
            return false;
        }
    }

    /// <summary>
    /// Before <see cref="Has"/>, which would register anew what nobody has. The worker that begins lifts all protection anyway, but wakes
    /// who waits for that: here it is one page of the piece, and nobody is woken.
    /// </summary>
    private static void CheckRegistered(Userfaultfd any, PageRange piece, HostAddress address)
    {
        int errno;
        while ((errno = any.WriteProtect(address, PageIndex.PageSize, protect: false, wake: false)) == Errno.EAGAIN)
        {
            Thread.Yield();
        }

        if (errno != 0)
        {
            throw new KernelException($"find a userfaultfd that serves {piece}", errno);
        }
    }

    private static PageRange Piece(PageRange range, int shift)
    {
        long border = ((range.First >> shift) + 1) << shift;
        return border < range.End ? new(range.First, border - range.First) : range;
    }

    /// <summary>Piece by piece also where there is one for all: of several that QEMU had, the others may be gone.</summary>
    private static void ForEachPiece(GuestRam ram, int shift, Action<PageRange, HostAddress> action)
    {
        foreach (var block in ram.Blocks)
        {
            for (long page = block.FirstPage; page < block.EndPage;)
            {
                var piece = Piece(new(page, block.EndPage - page), shift);
                action(piece, ram.AddressOf(page));
                page = piece.End;
            }
        }
    }
}
