namespace FCtrans.Kernel.Tests.Paging;

/// <summary>Who plays the guest: a process that touches its memory itself, or a machine under KVM, which touches it inside the kernel.</summary>
public enum Player
{
    Process,
    Kvm,
}

/// <summary>A guest that works on its memory and knows whether it is right, whoever plays it.</summary>
internal interface IWorkingGuest : IPagedProcess
{
    /// <summary>From now on it verifies and rewrites all that it uses, again and again.</summary>
    void Run();

    /// <summary>Stops that and verifies every page that was used; (pages verified, errors, memory errors).</summary>
    (long Pages, long Errors, long BusErrors) StopAndVerify();
}
